"""How the service is put on a machine: environments, the local launcher, and files for systemd, compose and Kubernetes."""
