"""The contract between control plane and agent: messages, codec, and the conversation without I/O."""
