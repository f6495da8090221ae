"""Jobs on Beanstalkd: the queue, the loop that works it, the operator's command."""
