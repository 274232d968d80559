"""What the page, the card and the panel in the chat show, and the files they are made of."""
