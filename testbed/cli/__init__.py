"""The command line: arguments, printing, exit codes. What is slow to import is imported when it is needed."""
