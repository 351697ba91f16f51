"""Search: propose candidates, screen them by cost, pay for quality, keep a journal."""

from nas.search.loop import SearchResult, search

__all__ = ["SearchResult", "search"]
