"""The testing kit: what third parties test their workflows, stores, wakers and handlers with."""
