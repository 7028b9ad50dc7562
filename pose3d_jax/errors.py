"""What a user can cause and mend; the door prints such an error as one message, without a trace."""


class UserError(ValueError):
    """Says what is wrong, where, and what to do."""
