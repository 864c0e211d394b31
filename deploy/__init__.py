"""How the service is put on a machine: environments, the local launcher, systemd and compose files."""
