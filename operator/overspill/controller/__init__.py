"""The operator: handlers → worker → observe → decide → render → apply → status."""
