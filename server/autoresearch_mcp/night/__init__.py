"""The night: keeps an agent alive that researches through our tools, and does nothing of what is the agent's."""
