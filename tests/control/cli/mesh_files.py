"""Files for the verbs that judge configuration offline."""

from __future__ import annotations

__all__ = ["APP"]

APP = """
apiVersion: v1
kind: Service
metadata: {name: rating}
spec: {selector: {app: rating}, ports: [{name: http, port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rating-v1}
spec: {replicas: 2, template: {metadata: {labels: {app: rating, version: v1}}, spec: {containers: [{name: app}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: rating-v2}
spec: {template: {metadata: {labels: {app: rating, version: v2}}, spec: {containers: [{name: app}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: book}
spec: {template: {metadata: {labels: {app: book}}, spec: {containers: [{name: app}]}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rating}
spec:
  host: rating
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v9, labels: {version: v9}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rating}
spec:
  hosts: [rating]
  http:
  - name: for-jo
    match: [{headers: {x-user: {exact: jo}}}]
    rewrite: {uri: /v2/}
    route:
    - destination: {host: rating, subset: v2}
      headers:
        request: {set: {x-new: "1"}, remove: [x-user]}
        response: {set: {x-served: mesh}, remove: [x-debug]}
    timeout: 2s
    retries: {attempts: 2, perTryTimeout: 500ms, retryOn: "5xx,reset"}
    mirrors: [{destination: {host: rating, subset: v1}, percentage: {value: 10}}]
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new, redirectCode: 302}
  - match: [{uri: {exact: /tea}}]
    directResponse: {status: 418, body: {string: short}}
  - match: [{uri: {exact: /gone}}]
    route: [{destination: {host: rating, subset: v9}}]
  - match: [{uri: {exact: /broken}}]
    route: [{destination: {host: rating, subset: v1}}]
    fault: {delay: {fixedDelay: 1s, percentage: {value: 5}}, abort: {httpStatus: 500, percentage: {value: 100}}}
  - match: [{uri: {prefix: /rate}}]
    route:
    - {destination: {host: rating, subset: v1}, weight: 75}
    - {destination: {host: rating, subset: v2}, weight: 25}
    retries: {attempts: 0}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com]}
  - {port: {number: 8081, name: http-b, protocol: HTTP}, hosts: [b.example.com]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [shop.example.com, b.example.com]
  gateways: [gw]
  http: [{match: [{uri: {prefix: /api}}], route: [{destination: {host: rating}}]}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: not-ours}
"""
