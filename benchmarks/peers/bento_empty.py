"""A BentoML service that does nothing: how soon could any service on BentoML answer?"""

import bentoml


@bentoml.service(name="bento_empty", logging={"access": {"enabled": False}})
class BentoEmpty:
    @bentoml.api
    def predict(self) -> list[float]:
        return []
