"""Sinks: each takes ended requests as Timelines and shows them somewhere; none sees a request or another sink."""
