"""What other servers import: a gateway that an environment variable declares."""

import json
import os

from asgi_gateway.gateway import Gateway

app = Gateway.parse(json.loads(os.environ["TEST_GATEWAY"]))
