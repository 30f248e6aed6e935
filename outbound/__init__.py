"""Where connections of this machine may lead: to the internet, and not into the networks around it. Imports nothing of ours."""
