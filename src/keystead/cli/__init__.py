"""The command line: a module a group of commands, each loaded only when it is asked for."""
