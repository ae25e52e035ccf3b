"""python -m hybridlab.cli: the command `hybridlab`, where its script is not on the path."""

from hybridlab.cli import main

main()
