"""How long labs take and what they weigh, beside the bare daemons and other tools: `python -m bench`, as root."""
