"""The status page: how every process, store and tube is, now and in the last minute."""
