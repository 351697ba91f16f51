"""Command line: verbs parse, call ``nas.pipeline`` and print; nothing else lives here."""
