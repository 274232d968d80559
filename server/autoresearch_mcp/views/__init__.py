"""What people and agents are shown: answers of tools, tables of the terminal, the picture."""
