"""Variables and secrets: versions, the ledger of what is present, and who owns generated entries."""
