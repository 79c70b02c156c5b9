"""Any command on a full distribution kernel: QEMU, started by virtme-ng, over this machine's own files."""
