"""A study's folder."""

from ktl.runs.run_folder import RunFolder


class StudyFolder(RunFolder):
    """The files of one study: config.json, dataset.json and environment.json as a run has them, and

    runs.csv     one row a run
    summary.csv  one row for each head, freeze depth and share of the training photos: means over the seeds
    duplicates.csv
                 one row for each test photo that is among the training photos too, or looks like one of them
    result.json  the heads at the depths that validation chose for them, and the differences to the replaced layer; what
                 the backbone's own layer reaches on the classes that ImageNet has too; how many duplicates there are
    runs/        a folder a run: run.json, or tried.json of a try at its settings; checkpoint/ of one that has not ended
    """

    KIND = "study"
    WAYS_ON = "Name another `output`, or `overwrite` this one"
