"""Run an assistant in each Whereby room that asks for one: verified, remembered, never twice."""
