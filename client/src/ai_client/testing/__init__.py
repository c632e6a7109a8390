"""Fakes for users' own tests: the provider simulator."""

from ai_client.testing.faults import Fault, FaultTextError
from ai_client.testing.simulator import Arrival, Simulator, SimulatorOptions

__all__ = ["Arrival", "Fault", "FaultTextError", "Simulator", "SimulatorOptions"]
