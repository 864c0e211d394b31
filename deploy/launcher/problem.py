"""The one exception of the launcher: something the user can mend, said in one line."""


class Problem(Exception):
    """Ends the command with this line on stderr and exit status 1."""
