"""What has fallen out of a conversation's window, kept such that it can be recalled where it fits the question."""

from frontend.services.memory.service import MemoryService as MemoryService
