"""What a prompt holds of a conversation: from items to token ids, trimmed in blocks, summarised in the background."""
