# SPDX-License-Identifier: GPL-3.0-or-later
"""The cloud provider of clusters whose nodes are virtual machines: of their nodes and load balancers.

Two clusters take part: the workload cluster, whose Nodes and Services these are, and the infrastructure cluster, where
its machines run, in one namespace.
"""
