"""What can go wrong in a way that the door prints as one message, without a trace."""


class UserError(ValueError):
    """What a user can cause and mend; says what is wrong, where, and what to do."""


class NonFiniteError(RuntimeError):
    """A term or a gradient was NaN or infinite; names the step, the term and the clips."""


class Interrupted(RuntimeError):
    """A signal asked the run to end; says where it stands and how it goes on."""
