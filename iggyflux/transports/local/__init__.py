"""This machine: message logs, files, stdin and stdout, dead letters, and transports in memory."""
