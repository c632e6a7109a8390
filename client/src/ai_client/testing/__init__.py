"""Fakes for users' own tests: the provider simulator."""

from ai_client.testing.counts import Arrival
from ai_client.testing.faults import Fault, FaultTextError
from ai_client.testing.simulator import Simulator, SimulatorOptions

__all__ = ["Arrival", "Fault", "FaultTextError", "Simulator", "SimulatorOptions"]
