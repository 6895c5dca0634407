"""Wakers: who calls back. `local` is the embedded one; each adapter brings its platform's."""
