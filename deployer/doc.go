// Package deployer brings a new image to an ECS service, and takes it back when
// it does not work.
//
// The words: a plan says what would be done, and is pure. The preflight finds
// what cannot work before anything changes. Applying registers a task
// definition revision and updates the service; the deployment id in
// UpdateService's answer is the anchor of all that follows. A look at AWS gives
// an observation; judging an observation gives a verdict, and is pure. A failed
// deployment is rolled back by rolling forward to the task definition that the
// service had before.
//
// Before the first change, a journal of what was before is written into tags of
// the service, and into a file. By it, any process on any jump server picks up
// what another one has left: Wait follows it to its end, RollBack takes it back,
// and neither begins a second time what has begun.
//
// Everything about the time that ECS takes is measured on AWS's clock: the
// timestamps in its answers and the Date header of the answer. Ours only says
// how often to look.
//
// It never rolls back a deployment that someone else began, never takes
// runningCount for success, and never declares failure because AWS is out of
// reach. What it does is told as events; how they are shown is the business of
// a Renderer, whose errors stop nothing.
package deployer
