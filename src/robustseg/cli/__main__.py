"""`python -m robustseg.cli` is the `robustseg` command."""

from robustseg.cli import main

main()
