"""What our processes are measured against: a small C forwarder of our own, and aiortc. No part of the product."""
