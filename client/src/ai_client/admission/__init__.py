"""When a call may be sent: windows, queue, scheduler, throttle, concurrency, breaker."""
