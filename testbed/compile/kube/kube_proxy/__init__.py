"""kube-proxy, compiled: Services and EndpointSlices to what the real program puts into a node's kernel, by mode.

`service_ports` and `config` are for all modes; `iptables`, `nftables` and `ipvs` hold a function of that name each.
"""
