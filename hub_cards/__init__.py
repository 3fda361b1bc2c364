"""Cards and publishing: what goes to the Hub, under which terms, checked before it goes."""
