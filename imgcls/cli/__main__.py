"""`python -m imgcls.cli`, where the `imgcls` script is not on the path."""

from imgcls.cli import main

main()
