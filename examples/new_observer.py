"""An observer of one's own: says how it went when a run ends.

lifelong run --stream digits --preset quick --plugin examples/new_observer.py --observe bell
"""

import lifelong


class Bell(lifelong.Observer):
    """Rings."""

    def run_finished(self, summary):
        """Ring when the last task has been learned."""
        print(f"ding: AP {summary.ap:.3f}")


lifelong.register_observer("bell", Bell)
