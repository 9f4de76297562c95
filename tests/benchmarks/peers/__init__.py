"""The engines that are timed beside each other, a file each: `prepare(job, options) -> Peer`.

All of them run the same compiled circuit with the same channels (`job.Job`), so that what they give can be compared.
"""
