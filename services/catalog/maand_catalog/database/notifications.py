"""What replicas say to one another through PostgreSQL: the channel, and the words. Who listens is `listener`."""

CHANNEL = "maand"


def payload(replica: str, topic: str) -> str:
    """Return the text of a notification: who says it, and the topic."""
    return f"{replica} {topic}"
