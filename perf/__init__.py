"""One command per question about speed; every report names the machine, the versions and both sides of a ratio."""
