"""Local transports: message logs, files, stdin and stdout, dead letters, and scripted ones in memory."""
