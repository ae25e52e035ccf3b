"""What the course's notebooks import, and the commands that build and check those notebooks.

from hybridlab.course import check, guess, hint, ledger, same, solution
"""

from hybridlab.course import ledger
from hybridlab.course.compare import same
from hybridlab.course.practice import check, hint, solution
from hybridlab.course.prediction import guess

__all__ = ["check", "guess", "hint", "ledger", "same", "solution"]
