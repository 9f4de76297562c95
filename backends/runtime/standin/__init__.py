"""A stand-in for IBM's Runtime service: a local server that speaks its REST interface.

IBM's service cannot be reached from CI, and its minutes are few. This server is reached by the real, unmodified
`QiskitRuntimeService` (channel "ibm_quantum_platform") through its `url`; what a test of qrun against it shows is that
qrun and qiskit-ibm-runtime behave, not that IBM's service does: for that there is tests/hardware.

    with StandIn(Settings(plan="open")) as service:  # in a test: the fixture of backends.runtime.standin.fixture
        os.environ.update(service.environment())
        ...
        service.faults.add(Fault("POST", r"/jobs$", status=504, after=True))
        assert len(service.accepted()) == 1

    python -m backends.runtime.standin --plan open  # prints the variables to export, and serves

The client has to leave the URL as it is: `backends.runtime.account.connect` does; QiskitRuntimeService itself takes
`url_resolver=lambda url, *_: url`.

What it imitates (qiskit-ibm-runtime 0.51, as its sources ask):

- Accounts: the exchange of the API key for an access token (IAM), Global Search and Global Catalog with one instance
  and its plan; 401 for a wrong key or token, 403 for another instance.
- Devices: ibm_kyiv, ibm_torino, ibm_fez ..., with configuration, properties and status from the packaged calibration
  of the fake device of that name.
- Jobs of the program "executor" (what `executor_sampler.Sampler` and `executor_estimator.Estimator` send, schema
  v2.0): queued, run by Aer with the device's errors, read back in the service's own encoding; listed by tags,
  session, device, state and time, with pages; cancelled, deleted, tagged, metered; their ISA circuits checked.
- Sessions and batches: states, max_ttl, the interactive TTL, closing, cancelling, use; the open plan has no sessions.
- QPU seconds, `max_execution_time` (reason code 1305), the instance's allowance, limits on what a job may hold.
- What goes wrong: error statuses and dropped connections, with the work done or not, delays, chaos by seed (`Fault`,
  `Chaos`); jobs that show late, that fail, whose use is told late (`Settings`). All of it by HTTP too (`control`).

What it does not: control flow, `meas_level` other than "classified", schemas other than v2.0, the older programs
("sampler", "estimator"), the noise learner, calibrations at an earlier time or by id, the privacy of jobs, several
instances or users, the fair-share queue, calibration drift. QPU seconds are 2 a job and the repetition delay (250 us) a
shot, whatever the circuit lasts. Error codes that public reports show (1200, 1201, 1208, 1217, 1305, 1352) are
those; 1291 (no such job) and 1002 (an ISA check that fails) are not from a source; where there is none, the code is the
HTTP status. What the service does once an allowance is spent is not
documented to the letter: here jobs stay queued.

The shots of a job are drawn with a seed that follows from what it asks (`Accepted.digest`): the same job gives the
same counts in every run. No time of the day stands in a result.
"""

from backends.runtime.standin.faults import Chaos, Fault
from backends.runtime.standin.service import StandIn
from backends.runtime.standin.settings import Settings

__all__ = ["Chaos", "Fault", "Settings", "StandIn"]
