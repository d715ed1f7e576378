"""Many images through a model without a server: ``python -m service bulk``.

    planning.py  what was named -> parts, each a few thousand images, as plain data
    parts.py     a part's images, one after the other, each with how it is read
    scorer.py    encoded images -> rows, by the service's decoder and session
    conveyor.py  reads ahead, computes on all slots, gives rows back in order
    output.py    the folder of results: plan, finished parts, what is still to do
    local.py, cluster.py   the engines: this process, or Ray

A part is the unit of everything: it is computed by whoever takes it, written to one file, and there or not there.
So a run that was killed goes on with the parts that are missing, and a part that is computed twice, as after the loss
of a machine, is one file all the same.
"""
