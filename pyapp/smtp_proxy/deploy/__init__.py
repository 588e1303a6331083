"""`smtp-proxy deploy`: a new image into a service of the AWS stack, checked before anything changes.

1. The newest task definition of the service's family, with the new image, is registered.
2. `smtp-proxy doctor` runs as a task of it: the same roles, networks, settings and secrets, and no traffic.
3. A service that CodeDeploy deploys (it has a port) gets a blue/green deployment; any other rolls, with ECS's circuit
   breaker. Autoscaling is suspended meanwhile: it can stop a deployment, or leave twice the tasks.

`smtp-proxy deploy migrate` runs the task that migrates, which no service has: registered like that, and run.

What goes wrong before step 3 has changed nothing; in step 3 AWS goes back by itself. Decision 0041.
"""
