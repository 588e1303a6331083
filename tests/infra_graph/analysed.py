"""`python -m infra_graph.analysed ENVIRONMENT OWN`: the graph as Pulumi's engine hands it to a policy pack, as JSON.

Against the mocks of `pulumi_program`. Everything is there, also the components and the provider.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pulumi

from infra_graph.pulumi_program import Monitor, run
from smtp_proxy_infra.stack import Own


class Whole(Monitor):
    def __init__(self) -> None:
        super().__init__()
        self.whole: list[dict[str, Any]] = []

    def RegisterResource(self, request: Any) -> Any:
        answer = super().RegisterResource(request)
        self.whole.append(
            {
                "type": request.type,
                "name": request.name,
                "urn": answer.urn,
                "parent": request.parent,
                "provider": request.provider.rpartition("::")[0],
                "inputs": pulumi.runtime.rpc.deserialize_properties(request.object),
                "outputs": pulumi.runtime.rpc.deserialize_properties(answer.object),
                "ignored": list(request.ignoreChanges),
                "dependencies": list(request.dependencies),
                "of_properties": {key: list(each.urns) for key, each in request.propertyDependencies.items()},
            }
        )
        return answer


if __name__ == "__main__":
    monitor = Whole()
    run(sys.argv[1], Own(**json.loads(sys.argv[2])), monitor)
    json.dump(monitor.whole, sys.stdout)
