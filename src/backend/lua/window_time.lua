-- The time of the server that holds KEYS[1]: seconds and microseconds.
return redis.call('TIME')
