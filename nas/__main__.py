"""``python -m nas``: the same as the ``nas`` command."""

from nas.cli.main import main

main(prog_name="nas")
